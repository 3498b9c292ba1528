"""Pure. Network architectures, one per module; no weights, no device choice and no I/O."""
