// What search shows of a page has no formulas in it: their source is no text to read.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return;
  const whole = Search.htmlToText;
  Search.htmlToText = (html, anchor) =>
    whole(html.replace(/<(div|span) class="math[^>]*>[^]*?<\/\1>/g, " … "), anchor).replace(/\s+/g, " ");
});
