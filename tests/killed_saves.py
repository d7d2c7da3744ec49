"""Kills a process that saves in a loop, again and again; prints what was found. Usage: killed_saves.py KILLS FOLDER"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a process with threads must not fork

import numpy as np

import backprop as bp


def save_for_ever(net: bp.Sequential, path: str, acknowledge: int, n: int) -> None:
    """Save n, n + 1, …, each in every weight, and say so once it is done."""
    while True:
        net.phi[...] = n
        net.save(path)
        os.write(acknowledge, b"%d\n" % n)
        n += 1


def main(kills: int, folder: str) -> None:
    """Each time, the last network that was acknowledged or the one after it must be there, and nothing else."""
    path, generator = f"{folder}/net.safetensors", np.random.default_rng(0)
    net = bp.Sequential(bp.Linear(256, 255), seed=0)  # 256 KB
    net.phi[...] = last = 0
    net.save(path)
    strays = 0
    for _ in range(kills):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            save_for_ever(net, path, write, last + 1)
        os.close(write)
        time.sleep(generator.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with open(read) as pipe:
            last = int((pipe.read().split() or [last])[-1])
        strays += len(os.listdir(folder)) > 1
        phi = bp.Sequential.load(path).phi
        if not (phi == phi[0]).all() or phi[0] not in (last, last + 1):
            sys.exit(f"acknowledged {last}, loaded {set(phi)}")
        if os.listdir(folder) != ["net.safetensors"]:
            sys.exit(f"left behind: {os.listdir(folder)}")
        last = int(phi[0])
    print(json.dumps({"kills": kills, "strays": strays, "saves": last}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
