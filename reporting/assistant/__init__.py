"""The assistant: questions about one study, answered from findings and cited sources."""
