// Without this file a slip of the finger would approve a change, and a bot's modal could be neither filled in nor sent.

import { byId, el } from "./dom.js";
import { renderBlocks, renderText } from "./render.js";

/** Asks what a button's `confirm` object asks. Resolves to true only when it was confirmed. */
export function confirmed(confirm, names) {
  const dialog = byId("confirm");
  const style = confirm.style === "danger" ? "danger" : "primary";
  const yes = el("button", { type: "button", class: `button ${style}`, id: "confirm-yes" }, confirm.confirm?.text ?? "Yes");
  const no = el("button", { type: "button", class: "button", id: "confirm-no" }, confirm.deny?.text ?? "Cancel");
  const text = el("div", { id: "confirm-text" }, confirm.text && renderText(confirm.text, names));
  dialog.replaceChildren(el("h2", { id: "confirm-title" }, confirm.title?.text ?? "Are you sure?"), text, el("div", { class: "dialog-foot" }, no, yes));
  return new Promise((resolve) => {
    const answer = (given) => {
      resolve(given);
      dialog.close();
    };
    yes.addEventListener("click", () => answer(true));
    no.addEventListener("click", () => answer(false));
    // The event comes a task after the closing: by then the next question may be open, which it does not answer.
    dialog.onclose = () => dialog.open || resolve(false);
    dialog.showModal();
  });
}

/** Closes an open question as if it had been denied: what it asked about is for another person, or gone. */
export function dropQuestion() {
  byId("confirm").close();
}

/**
 * Shows the topmost of the open views, or none. What was typed into a field is kept as long as its block_id and action_id stay.
 * `handlers` is {names, act(element), submit(view, values), close(view)}.
 */
export function showView(view, handlers) {
  const dialog = byId("modal");
  if (!view) {
    if (dialog.open) dialog.close();
    dialog.replaceChildren();
    return;
  }
  const signature = JSON.stringify([view.id, view.hash, view.errors]);
  if (dialog.open && dialog.dataset.signature === signature) return;
  const typed = dialog.open ? readValues(dialog) : {};
  dialog.dataset.signature = signature;
  dialog.replaceChildren(form(view, typed, handlers));
  dialog.oncancel = (event) => {
    event.preventDefault();
    handlers.close(view);
  };
  if (!dialog.open) dialog.showModal();
  (dialog.querySelector("[aria-invalid]") ?? dialog.querySelector("[data-field]"))?.focus();
}

/** What a form holds now, in Slack's shape of view.state.values: {block_id: {action_id: {type, value | selected_option}}}. */
function readValues(root) {
  const values = {};
  for (const field of root.querySelectorAll("[data-field]")) {
    const { block, field: action } = field.dataset;
    values[block] = { ...values[block], [action]: field.tagName === "SELECT" ? selectState(field) : textState(field) };
  }
  return values;
}

const textState = (field) => ({ type: "plain_text_input", value: field.value || null });

function selectState(field) {
  const option = field.selectedOptions[0];
  const chosen = option?.value ? { text: { type: "plain_text", text: option.text, emoji: true }, value: option.value } : null;
  return { type: "static_select", selected_option: chosen };
}

function form(view, typed, handlers) {
  const input = (block) => inputBlock(block, typed, view.errors?.[block.block_id]);
  const body = renderBlocks(view.blocks, { names: handlers.names, act: handlers.act, busy: false, input });
  const trouble = view.errors?.[""] && el("p", { class: "error", role: "alert" }, view.errors[""]);
  const close = el("button", { type: "button", class: "button", onclick: () => handlers.close(view) }, view.close?.text ?? "Cancel");
  const submit = view.submit && el("button", { type: "submit", class: "button primary" }, view.submit.text);
  const title = el("h2", { id: "modal-title" }, view.title?.text ?? "");
  const node = el("form", { class: "modal-form", novalidate: true }, title, el("div", { class: "modal-body" }, trouble, ...body), el("div", { class: "dialog-foot" }, close, submit));
  node.addEventListener("submit", (event) => {
    event.preventDefault();
    if (requiredFilled(node)) handlers.submit(view, readValues(node), submit);
  });
  return node;
}

/** Slack itself refuses an empty required field before the app hears of it. */
function requiredFilled(node) {
  const empty = Array.from(node.querySelectorAll("[data-field][aria-required=true]")).filter((field) => !field.value.trim());
  for (const field of empty) markError(field, "Please fill in this field");
  empty[0]?.focus();
  return empty.length === 0;
}

function markError(field, text) {
  field.setAttribute("aria-invalid", "true");
  const message = byId(`${field.id}-error`);
  message.textContent = text;
  message.hidden = false;
}

function inputBlock(block, typed, error) {
  const { element } = block;
  const id = `field-${block.block_id}-${element.action_id}`;
  const field = fieldFor(element, typed[block.block_id]?.[element.action_id]);
  const about = { id, "data-field": element.action_id, "data-block": block.block_id, "aria-required": String(!block.optional), "aria-describedby": `${id}-error` };
  for (const [name, value] of Object.entries(about)) field.setAttribute(name, value);
  if (error) field.setAttribute("aria-invalid", "true");
  return el(
    "div",
    { class: "input" },
    el("label", { for: id }, block.label.text, block.optional ? el("span", { class: "dim" }, " (optional)") : null),
    field,
    block.hint && el("p", { class: "dim" }, block.hint.text),
    el("p", { id: `${id}-error`, class: "error", role: "alert", hidden: !error }, error),
  );
}

function fieldFor(element, state) {
  if (element.type === "plain_text_input") return textField(element, state);
  if (element.type === "static_select") return selectField(element, state);
  throw new TypeError(element.type);
}

function textField(element, state) {
  const field = el(element.multiline ? "textarea" : "input", { maxlength: element.max_length, placeholder: element.placeholder?.text });
  field.value = (state ? state.value : element.initial_value) ?? "";
  return field;
}

function selectField(element, state) {
  const field = el("select", {}, el("option", { value: "" }, element.placeholder?.text ?? "Choose an option"));
  field.append(...element.options.map((option) => el("option", { value: option.value }, option.text.text)));
  field.value = (state ? state.selected_option : element.initial_option)?.value ?? "";
  return field;
}
