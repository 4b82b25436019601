// A table that is wider than the page is scrolled by the theme, but with a pointer alone: let the keyboard reach it.
document$.subscribe(() => {
  const reach = () => {
    for (const wrap of document.querySelectorAll(".md-typeset__scrollwrap")) {
      const wide = wrap.scrollWidth > wrap.clientWidth;
      wide ? wrap.setAttribute("tabindex", "0") : wrap.removeAttribute("tabindex");
      wide ? wrap.setAttribute("role", "group") : wrap.removeAttribute("role");
      wide ? wrap.setAttribute("aria-label", "Table, scrolls sideways") : wrap.removeAttribute("aria-label");
    }
  };
  requestAnimationFrame(() => requestAnimationFrame(reach));
  window.addEventListener("resize", reach);
});
