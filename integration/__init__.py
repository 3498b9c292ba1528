"""The shell: wiring, engine, outward adapters, HTTP and the command line."""
