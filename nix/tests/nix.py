"""Nix expressions from Python."""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
OFFLINE = PROJECT / "nix" / "offline"


class Unavailable(Exception):
    """Why nothing can be evaluated here."""


class Nix:
    """Evaluates expressions in which `nixpkgs` is the tree and `pkgs` its packages."""

    def __init__(self) -> None:
        given = os.environ.get("NIXPKGS")
        if not given:
            raise Unavailable("NIXPKGS names no nixpkgs tree")
        self.nixpkgs = Path(given).resolve()
        if not (self.nixpkgs / "nixos").is_dir():
            raise Unavailable(f"NIXPKGS={given} is no nixpkgs tree")
        tried = subprocess.run([OFFLINE, "nix", "--version"], capture_output=True, text=True)
        if tried.returncode != 0:
            raise Unavailable(tried.stderr.strip().splitlines()[-1])

    def evaluate(self, expression: str) -> Any:
        """The value of an expression; paths in it start at the project."""
        whole = (
            f"let nixpkgs = {self.nixpkgs}; pkgs = import nixpkgs {{ system = builtins.currentSystem; }};"
            f" in {expression}"
        )
        done = subprocess.run(
            [OFFLINE, "nix", "eval", "--impure", "--json", "--expr", whole],
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise SystemExit(f"does not evaluate:\n{done.stderr}")
        return json.loads(done.stdout)

    def evaluate_all(self, expressions: list[str]) -> list[Any]:
        """Some at a time."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(self.evaluate, expressions))

    @staticmethod
    def strings(texts: list[str]) -> str:
        """A list of them in Nix."""
        return f"[ {' '.join(json.dumps(text) for text in texts)} ]"
