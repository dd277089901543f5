"""What is compared: each system's name, where it is, and what it can do."""

from dataclasses import dataclass

from benchmarks.per_label.tasks import Task

HERE = "benchmarks.per_label"
OPEN = ("classify", "extract", "generate")
CLOSED = ("classify",)


@dataclass(frozen=True, slots=True)
class System:
    """`run` is its function, as module:function; `kinds` and `languages` are those it can do.

    That of a `peer` is run by the interpreter of an environment that has the other tool.
    """

    name: str
    title: str
    run: str
    kinds: tuple[str, ...] = OPEN
    languages: tuple[str, ...] = ("en",)
    peer: bool = False

    def can(self, task: Task) -> bool:
        """Whether it can do `task`."""
        return task.kind in self.kinds and task.language in self.languages


ANY = ("en", "zh")
# From the cheapest to the dearest, which is the order they are measured in.
SYSTEMS = {
    system.name: system
    for system in (
        System("majority", "commonest answer", f"{HERE}.words:commonest", languages=ANY),
        System("tfidf", "TF-IDF", f"{HERE}.words:tfidf", languages=ANY),
        System("encoder", "encoder (MiniLM)", f"{HERE}.words:encoder"),
        System("states", "base model's states", f"{HERE}.base_model:states", CLOSED),
        System("zero-shot", "base model, zero-shot", f"{HERE}.base_model:zero_shot"),
        System("few-shot", "base model, few-shot", f"{HERE}.base_model:few_shot"),
        System("setfit", "SetFit 1.2", f"{HERE}.peers.setfit_pairs:defaults", CLOSED, peer=True),
        System("article", "kilotune `article`", f"{HERE}.tuned:article"),
        System("auto", "kilotune `auto`", f"{HERE}.tuned:auto"),
        System("trl", "TRL 1.16 LoRA", f"{HERE}.peers.trl_sft:documented", peer=True),
        System("factory", "TRL as LLaMA-Factory", f"{HERE}.peers.trl_sft:factory", peer=True),
    )
}  # fmt: skip
