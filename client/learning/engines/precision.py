# SPDX-License-Identifier: Apache-2.0
"""Arithmetic in which a norm is a bound: float32 or wider, as written, no reduced matrix products.

A norm in bfloat16 is off by up to a percent, and so is the clip. Autocast, TF32 and compiled graphs (which
may reorder and fuse what the engine measured) can be switched on far away from here; every call of an
engine looks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from policies.privacy.errors import PrecisionRefusedError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["check_precision"]

_DEVICES: Final = ("cpu", "cuda")
_PRODUCTS: Final = ("ieee", "none")  # settings of float32 products that keep float32
_WIDE: Final = (torch.float32, torch.float64)


def check_precision(model: nn.Module) -> None:
    """Passes float32 arithmetic as written.

    Raises:
        PrecisionRefusedError: Autocast is on, float32 products may use fewer bits, a parameter is narrower
            than float32, or the model is compiled.
    """
    found = _imprecise(model)
    if found:
        raise PrecisionRefusedError(
            need="float32 arithmetic as written, inside the clipped sum",
            found=found,
            remedy='no autocast, torch.set_float32_matmul_precision("highest"), no torch.compile',
        )


def _imprecise(model: nn.Module) -> str | None:
    for device in _DEVICES:
        if torch.is_autocast_enabled(device):
            return f"autocast on {device}"
    if _narrow_products():
        return "float32 products with fewer bits (TF32 or bfloat16)"
    if torch.compiler.is_compiling():
        return "a graph that is being compiled"
    for name, module in model.named_modules():
        held = vars(module)
        if held.get("_compiled_call_impl") is not None or "_orig_mod" in held.get("_modules", {}):
            return f"{name or 'the model'}: compiled"
    narrow = [name for name, p in model.named_parameters() if p.dtype not in _WIDE]
    return f"{narrow[0]}: a parameter narrower than float32" if narrow else None


def _narrow_products() -> bool:
    places: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cuda)  # inherit from the global setting
    return any(place.matmul.fp32_precision not in _PRODUCTS for place in places)
