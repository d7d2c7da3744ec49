// Tables of values and derivatives, a number at a time. Without this script they are whole.
document.querySelectorAll("div.steps").forEach((box) => {
  const cells = [...box.querySelectorAll("[data-step]")];
  const last = Math.max(...cells.map((cell) => Number(cell.dataset.step)));
  const say = box.querySelector(".say");
  let step = last;

  function show(to) {
    step = Math.min(Math.max(to, 0), last);
    for (const cell of cells) {
      const its = Number(cell.dataset.step);
      cell.classList.toggle("later", its > step);
      cell.classList.toggle("now", its === step);
      if (its === step && cell.dataset.say) say.textContent = cell.dataset.say;
    }
    if (step === 0) say.textContent = "Nothing is computed yet.";
  }

  function button(words, where) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = words;
    made.addEventListener("click", () => show(where()));
    return made;
  }

  const bar = document.createElement("p");
  bar.className = "bar";
  bar.append(
    button("From the start", () => 0),
    button("Back", () => step - 1),
    button("Step", () => (step === last ? 1 : step + 1)),
    button("All", () => last),
  );
  box.insertBefore(bar, say);
});
