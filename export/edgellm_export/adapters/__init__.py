"""LoRA adapters (PEFT's directories): what they say is read as PEFT reads it, and merged into a checkpoint's weights as
views of them."""
