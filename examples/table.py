"""What does a flat cost? A table with words and holes, a network that gives rents, and a file that holds both.

python examples/table.py        (needs the extra: pip install "backprop-mlp[tables]" pandas)
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import backprop as bp
from backprop.pictures import axes


def flats(n: int, seed: int) -> pd.DataFrame:
    """Flats and their rents, drawn at random; one size in twenty is not known."""
    rng = np.random.default_rng(seed)
    size, town = rng.uniform(20, 120, n), rng.choice(["Bonn", "Köln", "Ulm"], n)
    lift, floor = rng.random(n) < 0.5, rng.integers(0, 6, n)
    price = pd.Series(town).map({"Bonn": 11.0, "Köln": 14.0, "Ulm": 10.0}).to_numpy()
    rent = price * size**0.9 * 1.5 - np.where(lift, 0, 15) * floor + rng.normal(0, 25, n)
    size[rng.random(n) < 0.05] = np.nan
    return pd.DataFrame({"size": size.round(1), "town": town, "lift": lift, "floor": floor, "rent": rent.round()})


def main(out: Path, quick: bool = False) -> float:
    """Train on 2,000 flats and draw the predicted rents of 500 others against what is paid."""
    train, later = flats(200 if quick else 2000, seed=0), flats(500, seed=1)
    table = bp.Table("rent", missing="impute", scale_target=True)
    X, y = table.fit(train)
    print(f"{len(train.columns) - 1} columns become {X.shape[1]} numbers: {', '.join(table.feature_names)}")

    net = bp.Sequential(bp.Linear(X.shape[1], 64), bp.ReLU(), bp.Linear(64, 64), bp.ReLU(), bp.Linear(64, 1), seed=0)
    trainer = bp.Trainer(net, bp.Huber(), bp.AdamW(bp.CosineDecay(0.003, steps=2000), weight_decay=0.01), batch_size=64)
    trainer.fit(X, y, epochs=5 if quick else 60, validation_data=(table.transform(later), table.targets(later)))

    net.save(out / "rents.safetensors", table=table)  # and in another process, or another year:
    net, table = bp.Sequential.load(out / "rents.safetensors"), bp.Table.load(out / "rents.safetensors")
    rent = table.values(net.predict(table.transform(later)))
    error = float(np.median(np.abs(rent - later["rent"])))
    print(f"Half of the rents are predicted to within {error:.0f} euros.")

    picture = axes()
    for marker, town in zip("o^s", ["Bonn", "Köln", "Ulm"], strict=True):
        mine = (later["town"] == town).to_numpy()
        picture.scatter(later["rent"][mine], rent[mine], 14, marker=marker, alpha=0.6, label=town)
    picture.axline((500, 500), slope=1, color="black", linewidth=1)
    picture.set(xlabel="rent paid, euros", ylabel="rent predicted, euros")
    picture.legend(frameon=False)
    picture.figure.savefig(out / "table.png", dpi=192)
    return error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the picture (default: here)")
    parser.add_argument("--quick", action="store_true", help="a small run, to see that it works")
    main(**vars(parser.parse_args()))
