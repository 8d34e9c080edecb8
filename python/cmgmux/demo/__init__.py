"""What ``cmgmux demo`` is made of: a plan, a supervisor, readings and their display."""
