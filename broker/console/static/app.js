// SPDX-License-Identifier: Apache-2.0
// What the pages do beyond HTML: copy a digest, say whether a stream lives, ask for a passkey. All works without.
"use strict";

document.addEventListener("click", (event) => {
  const code = event.target.closest("[data-copy]");
  if (code && navigator.clipboard) navigator.clipboard.writeText(code.dataset.copy).then(() => code.classList.add("copied"));
});

function stream(event, alive) {
  const line = event.target.closest("[data-panel]")?.querySelector(".stream");
  if (!line) return;
  line.classList.toggle("alive", alive);
  line.textContent = alive ? `${line.dataset.live} ${new Date().toLocaleTimeString()}` : line.dataset.dead;
}
document.addEventListener("htmx:sseOpen", (event) => stream(event, true));
document.addEventListener("htmx:sseError", (event) => stream(event, false));
document.addEventListener("htmx:sseClose", (event) => stream(event, false));

// Passkeys. A form with data-ceremony asks for one when it is sent; a part with data-passkey, by its own button.
const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));
const text = (data) => btoa(String.fromCharCode(...new Uint8Array(data))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

function asked(part) {
  if (part.dataset.passkey) {
    const hex = part.dataset.passkey.replace("sha256:", "");
    return { challenge: Uint8Array.from(hex.match(/../g), (one) => parseInt(one, 16)), userVerification: "preferred" };
  }
  const found = JSON.parse(part.dataset.options);
  found.challenge = bytes(found.challenge);
  if (found.user) found.user.id = bytes(found.user.id);
  for (const one of [...(found.allowCredentials ?? []), ...(found.excludeCredentials ?? [])]) one.id = bytes(one.id);
  return found;
}

async function answer(part, form) {
  const publicKey = asked(part);
  const made = part.dataset.ceremony === "create" ? await navigator.credentials.create({ publicKey }) : await navigator.credentials.get({ publicKey });
  const response = { clientDataJSON: text(made.response.clientDataJSON) };
  for (const name of ["attestationObject", "authenticatorData", "signature", "userHandle"]) if (made.response[name]) response[name] = text(made.response[name]);
  form.elements.assertion.value = JSON.stringify({ id: made.id, rawId: text(made.rawId), type: made.type, response });
  form.requestSubmit();
}

function ask(part, form) {
  const line = part.querySelector("[data-failed]");
  if (line) line.textContent = "";
  answer(part, form).catch(() => { if (line) line.textContent = line.dataset.failed; });
}

if (window.PublicKeyCredential) {
  for (const part of document.querySelectorAll("[data-passkey], [data-ceremony]")) part.hidden = false;
  document.addEventListener("click", (event) => {
    const part = event.target.closest("[data-passkey]");
    if (part && event.target.closest("button")) ask(part, part.closest("form"));
  });
  document.addEventListener("submit", (event) => {
    const form = event.target.closest("[data-ceremony]");
    if (!form || form.elements.assertion.value) return;
    event.preventDefault();
    ask(form, form);
  });
}
