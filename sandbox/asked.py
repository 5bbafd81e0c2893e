# SPDX-License-Identifier: Apache-2.0
"""What a person asked the sandbox for, checked before anything is made.

A sandbox works for minutes before the broker sees the first number. So each command checks here, at its
start, what would fail then: a refusal leaves nothing behind.

    epsilon_of("8", "shares"), epsilon_of("inf", "shares")             # "8", None: without privacy
    check_donated(episodes=250, seed_episodes=10)
    check_verifier(Path("/opt/auditor/bin/iriai-verify"))
    votes_drown(recipe, episodes=10)                                   # words, or None: a warning, no refusal
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from policies.encoding import decimal_text
from policies.errors import EncodingError
from policies.privacy.accounting import calibrate, filter_order
from policies.privacy.errors import PrivacyError
from sandbox.errors import UsageError
from sandbox.recipes import DELTA, SAMPLING_PROB, steps_of

if TYPE_CHECKING:
    from pathlib import Path

    from policies.recipe import Recipe
    from sandbox.recipes import Noise

__all__ = ["check_donated", "check_verifier", "epsilon_of", "votes_drown"]

_TIMES: Final = 3  # the threshold of a vote is at least so many deviations of its noise, or chance decides


def epsilon_of(text: str, noise: Noise) -> str | None:
    """The epsilon of one release as contracts spell it; None for ``inf``, which is without privacy.

    Args:
        text: What was typed.
        noise: The recipe's kind; with shares it has more steps, so needs more noise.

    Raises:
        UsageError: No decimal above 0; or no noise reaches it, or no order of the filter holds one release.
    """
    if text == "inf":
        return None
    try:
        plain = decimal_text(text)
        if float(plain) <= 0:
            raise _no_epsilon(text, "a decimal above 0, or inf")
        calibrate(float(plain), float(DELTA), float(SAMPLING_PROB), steps_of(noise))
        filter_order(epsilon_total=plain, epsilon_per_release=plain, delta=DELTA)
    except EncodingError as error:
        raise _no_epsilon(text, "a decimal above 0, or inf") from error
    except PrivacyError as error:
        raise _no_epsilon(text, f"one that a release at delta {DELTA} can have") from error
    return plain


def _no_epsilon(text: str, need: str) -> UsageError:
    return UsageError(
        need=f"--epsilon: {need}",
        found=ascii(text)[:80],
        remedy="--epsilon 8, for example; --epsilon inf runs without privacy and says so",
    )


def votes_drown(recipe: Recipe, *, episodes: int) -> str | None:
    """A warning where so few episodes are judged that noise, and not the model, decides on the release.

    Args:
        recipe: As asked for; one without privacy has next to no noise on its votes.
        episodes: Per cell.
    """
    plan = recipe.evaluation
    noise, threshold = plan.noise_std / float(plan.normalizer), float(plan.threshold)
    if _TIMES * noise <= threshold:
        return None
    return (
        f"warning: with {episodes} episodes per cell the release will probably be refused: a vote accepts a "
        f"loss of at most {threshold:g}, and the noise on it is {noise:.2g}; --episodes 250, or --epsilon inf"
    )


def check_donated(*, episodes: int, seed_episodes: int) -> None:
    """Returns if every maker keeps episodes beside those that it gives away.

    Raises:
        UsageError: It would keep none.
    """
    if seed_episodes >= episodes:
        raise UsageError(
            need="fewer --seed-episodes than --episodes: what is given away is taken from them",
            found=f"{seed_episodes} of {episodes}",
            remedy=f"--episodes {max(250, 2 * seed_episodes)}, or fewer --seed-episodes",
        )


def check_verifier(path: Path | None) -> None:
    """Returns if the auditor's command can be run, or none was named.

    Raises:
        UsageError: It is no file that can be executed.
    """
    if path is not None and not (path.is_file() and os.access(path, os.X_OK)):
        raise UsageError(
            need="--verifier: a file that can be executed",
            found=str(path),
            remedy="the iriai-verify of an environment with the base install, or no --verifier",
        )
