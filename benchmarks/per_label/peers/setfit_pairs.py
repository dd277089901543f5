"""SetFit: the encoder is trained on pairs of texts, then its head on their embeddings.

Its defaults: one epoch over pairs, batches of 16, 2e-5. Pairs grow with the square of the rows, so
that there are at most as many as its paper has, 20 of either kind a row.
"""

import itertools
from collections import Counter

from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments

from benchmarks.per_label.worker import Job, Learnt

PAIRS_OF_A_ROW = 20


def defaults(job: Job) -> Learnt:
    """SetFit with its defaults."""
    model = SetFitModel.from_pretrained(job.encoder, labels=list(job.labels), local_files_only=True)
    numbers = [job.labels.index(answer) for answer in job.answers]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=f"{job.scratch}/setfit",
            num_iterations=pair_rounds(job.answers),
            seed=job.seed,
            report_to="none",
            save_strategy="no",
            show_progress_bar=False,
        ),
        train_dataset=Dataset.from_dict({"text": list(job.texts), "label": numbers}),
    )
    trainer.train()
    return Learnt(lambda: [str(label) for label in model.predict(list(job.asked_texts))])


def pair_rounds(answers: tuple[str, ...]) -> int | None:
    """`num_iterations` where its default would make more pairs than that many a row; else None."""
    sizes = Counter(answers).values()
    alike = sum(size * (size + 1) // 2 for size in sizes)
    different = sum(a * b for a, b in itertools.combinations(sizes, 2))
    most = 2 * PAIRS_OF_A_ROW * len(answers)
    return PAIRS_OF_A_ROW if 2 * max(alike, different) > most else None
