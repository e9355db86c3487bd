"""Who trains in turns. Each module has `run(seat, gate)`: build, then step until the gate says stop."""
