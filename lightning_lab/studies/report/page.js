"use strict";
// The switches set two attributes of the page; the style does the rest. Without a script there are none.
const page = document.documentElement;
for (const box of document.querySelectorAll(".switches")) box.hidden = false;
const connect = (id, attribute, on, off) => {
  const input = document.getElementById(id);
  if (!input) return;
  const apply = () => page.setAttribute(attribute, input.checked ? on : off);
  input.addEventListener("change", apply);
  apply(); // a browser that comes back remembers what was checked
};
connect("smoothed", "data-curves", "smooth", "raw");
connect("runs", "data-runs", "shown", "hidden");
