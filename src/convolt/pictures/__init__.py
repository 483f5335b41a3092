"""What a run shows at its end: arrays to figures. Matplotlib is imported where something is drawn, and only there."""
