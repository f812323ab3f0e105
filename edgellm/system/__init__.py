"""What the machine gives: cores, control groups, memory and its speed, the processor's instructions, other programs."""
