"""Train a network, or many with -m: python train.py --help."""

from pathlib import Path

from convolt.command_line import train

if __name__ == "__main__":
    train(Path(__file__).resolve().parent / "conf")
