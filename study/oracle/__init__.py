"""Reading activations with an oracle from the command line: loading, remembering self-tests, tables on disk."""
