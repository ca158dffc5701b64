// Without this file every module would build nodes its own way, and one of them would sooner or later build them from HTML text.

/** A node. Attributes with value false, null or undefined are left out; `on…` ones are listeners; children are nodes, text, or nothing. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child instanceof Node || (typeof child === "string" && child)));
  return node;
}

export const byId = (id) => document.getElementById(id);

const drawn = new WeakMap();

/**
 * Makes the children of `parent` those of `items`, rebuilding only what changed: selected text and focus survive a new snapshot.
 * An item is {key, signature, build}; equal signatures draw equally.
 */
export function reconcile(parent, items) {
  const old = new Map(Array.from(parent.children, (node) => [node.dataset.key, node]));
  const nodes = items.map((item) => {
    const kept = old.get(item.key);
    return kept && drawn.get(kept) === item.signature ? kept : build(item);
  });
  if (nodes.length === parent.children.length && nodes.every((node, index) => node === parent.children[index])) return;
  const refocus = focusWithin(parent);
  parent.replaceChildren(...nodes);
  refocus?.();
}

function build(item) {
  const node = item.build();
  node.dataset.key = item.key;
  drawn.set(node, item.signature);
  return node;
}

/** How to give the focus back to what had it inside `parent`, found again by its message and action. */
function focusWithin(parent) {
  const focused = document.activeElement;
  if (!parent.contains(focused) || focused === parent) return null;
  const key = focused.closest("[data-key]")?.dataset.key;
  const action = focused.dataset.action;
  return () => {
    const owner = Array.from(parent.children).find((node) => node.dataset.key === key);
    const again = Array.from(owner?.querySelectorAll("[data-action]") ?? []).find((node) => node.dataset.action === action);
    (focused.isConnected ? focused : again ?? parent).focus({ preventScroll: true });
  };
}
