"""What Ctrl-C raises."""


class StoppedByUser(KeyboardInterrupt):
    """Ctrl-C stopped runs that can go on; IPython shows its message, which says how, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows."""
        return [f"interrupted: {self}"]
