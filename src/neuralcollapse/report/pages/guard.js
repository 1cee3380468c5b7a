"use strict";
// The page's policy forbids style attributes and style elements that are written as text. Plotly writes a few
// attributes, which reach the same elements through the object model here, and one sheet for maps, which no figure
// of these pages uses.
{
  const setAttribute = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (name, value) {
    if (name === "style" && this.style) this.style.cssText = value;
    else setAttribute.call(this, name, value);
  };
  const append = document.head.appendChild;
  document.head.appendChild = function (node) {
    return node.tagName === "STYLE" && node.textContent ? node : append.call(this, node);
  };
}
