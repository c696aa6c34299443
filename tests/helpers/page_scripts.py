"""Scripts that look at a page in a browser."""

from __future__ import annotations

from selenium import webdriver

# Opens all folds and shows all panels, so that checks cover them, too.
UNFOLD = """
for (const fold of document.querySelectorAll("details")) fold.open = true;
document.styleSheets[0].insertRule(".tabs > .panel { display: block !important }");
"""
WIDE = """
const { scrollWidth, clientWidth } = document.documentElement;
return [scrollWidth, clientWidth];
"""
# Finds text whose contrast with its background is below 4.5 (WCAG 2.2).
FAINT = """
const rgb = (css) => (css.match(/[0-9.]+/g) ?? []).map(Number);
const light = (colour) => {
  const [r, g, b] = colour.map((v) => v / 255).map(
    (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const colour = rgb(getComputedStyle(node).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour.slice(0, 3);
  }
};
const faint = [];
let seen = 0;
for (const node of document.body.querySelectorAll("*")) {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  if (!own || !node.getClientRects().length || node.disabled) continue;
  const style = getComputedStyle(node);
  const ink = rgb(node instanceof SVGElement ? style.fill : style.color);
  const [a, b] = [light(ink.slice(0, 3)), light(behind(node))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  seen += 1;
  if (contrast < 4.5) faint.push([node.tagName, node.className, node.textContent, contrast]);
}
return [seen, faint];
"""


def text_of(chrome: webdriver.Chrome, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((n) => n.textContent)"
    found: list[str] = chrome.execute_script(script, selector)
    return found
