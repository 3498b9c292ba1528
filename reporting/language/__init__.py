"""The language side: crude reports, their metrics, language models and what they are trained on."""
