"""Train a network, or many with -m: python train.py --help."""

from pathlib import Path

from convolt.cli.train import train

if __name__ == "__main__":
    train(Path(__file__).resolve().parent / "conf")
