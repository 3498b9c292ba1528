"""The receiving side: takes studies in over DIMSE or STOW-RS, keeps, assembles and routes them."""
