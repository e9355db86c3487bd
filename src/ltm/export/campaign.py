"""A whole study as Axolotl's: one folder a variant with its tokens in order, and a configuration for each of its seeds.

Reads: the queue, `sets/variants.parquet`, `tokens/`, the base model (or the shape: then the models to start from are
written too, with the same initial weights as here). Writes: `<variant_id>/stream.parquet`,
`<variant_id>/config-<seed>.yaml`, `base/` or `start-<seed>/`, `campaign.csv` and a README. Nothing of ltm is needed to
train from it, and no path of this machine stands in a configuration.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltm.books.catalogue import read_catalogue
from ltm.export.hf import export_hf, whole_folder
from ltm.model.base import base_tokenizer, is_own, read_base
from ltm.model.sizes import ModelConfig
from ltm.records import Variant
from ltm.runs import hardware, queue
from ltm.runs.engines import axolotl
from ltm.runs.queue import Job, Recipe
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, write_text
from ltm.tokens.stream import Stream, open_stream, read_shards
from ltm.tokens.tokenizer import Tokenizer, load

BASE, TABLE = "base", "campaign.csv"
_ENVIRONMENT = "AXOLOTL_DO_NOT_TRACK=1 HF_HUB_OFFLINE=1"


def export_campaign(work: WorkFolder, folder: Path, study: str, question: str) -> dict[str, Any]:
    """Write all runs of a study for Axolotl; returns where, how many, and what of the study Axolotl cannot do.

    Args:
        work: The study's work folder; its sets and tokens stand.
        folder: To be made.
        study: The study's name.
        question: What it asks.

    Raises:
        InputError: the folder exists, or the base model is not there.
        ConfigError: `runs.axolotl` has a key that Axolotl does not know.
        StoreError: sets or tokens are missing, or the folder cannot be written.
    """
    recipe, jobs = queue.read_jobs(work)
    recipes = queue.read_recipes(work)
    variants = {variant.index: variant for variant in read_variants(work)}
    with whole_folder(folder) as temporary:
        starts = _write_starts(temporary, work, recipe, jobs)
        rows = []
        for index in dict.fromkeys(job.variant_index for job in jobs):
            own = [job for job in jobs if job.variant_index == index]
            used = recipes.get(own[0].recipe, recipe)
            _write_variant(temporary / variants[index].variant_id, work, used, variants[index], own, starts)
            rows += [_row(job, variants[index]) for job in own]
        write_text(temporary / TABLE, _csv(rows))
        differs = _differences(recipe)
        write_text(temporary / "README.md", _readme(work, recipe, rows, differs, study, question))
    return {
        "folder": str(folder),
        "variants": len({r["variant_id"] for r in rows}),
        "runs": len(rows),
        "differs": differs,
    }


def _write_starts(folder: Path, work: WorkFolder, recipe: Recipe, jobs: Sequence[Job]) -> dict[int, str]:
    """Write what the runs start from, and return its folder by seed: one base, or a random model for each seed."""
    seeds = sorted({job.init_seed for job in jobs})
    tokenizer = load(work)
    if recipe.model.base is not None:
        base = Path(recipe.model.base)
        if not is_own(base):
            read_base(base)
            (folder / BASE).symlink_to(base.resolve(), target_is_directory=True)
        else:
            from ltm.runs import checkpoint

            base_tokenizer(base)
            export_hf(checkpoint.load_file(base / "weights.safetensors", "cpu")[0], tokenizer, folder / BASE)
        return dict.fromkeys(seeds, BASE)
    shape = recipe.model.shape(tokenizer.vocab_size)
    for seed in seeds:
        _write_random(folder / f"start-{seed}", shape, seed, tokenizer, recipe.runs.engine == "native")
    return {seed: f"start-{seed}" for seed in seeds}


def _write_random(folder: Path, shape: ModelConfig, seed: int, tokenizer: Tokenizer, native: bool) -> None:
    """Write the model that a run starts from here, with the same bits."""
    from ltm.model.gpt import GPT
    from ltm.model.init import init_weights
    from ltm.runs.engines import base_model

    model = GPT(shape)
    init_weights(model, seed)
    export_hf(model, tokenizer, folder)
    if not native:  # transformers draws its own
        drawn = base_model.from_shape(shape, seed, tokenizer.bos_id)
        (folder / "model.safetensors").unlink()
        drawn.config.use_cache = True
        drawn.save_pretrained(folder)


def _write_variant(
    folder: Path, work: WorkFolder, recipe: Recipe, variant: Variant, jobs: Sequence[Job], starts: Mapping[int, str]
) -> None:
    tokenizer = load(work)
    block_size = recipe.model.shape(tokenizer.vocab_size).block_size
    stream: Stream = open_stream(work, variant, recipe.sets, read_shards(work), tokenizer.bos_id, tokenizer.vocab_size)
    device = hardware.pick_device(recipe.runs)
    dtype = axolotl.precision(recipe.runs, device)
    folder.mkdir()
    axolotl.write_stream(folder / axolotl.STREAM, stream, recipe.n_steps() * recipe.runs.batch_tokens, block_size)
    for job in jobs:
        values = axolotl.config_of(
            recipe.runs, f"../{starts[job.init_seed]}", block_size, recipe.n_steps(), job.init_seed, device, dtype
        )
        values |= {"output_dir": f"out-{job.init_seed}", "dataset_prepared_path": f"prepared-{job.init_seed}"}
        axolotl.write_config(folder / f"config-{job.init_seed}.yaml", values | recipe.runs.axolotl)


def _row(job: Job, variant: Variant) -> dict[str, Any]:
    return {
        "run_id": job.run_id,
        "variant_id": variant.variant_id,
        "config": f"{variant.variant_id}/config-{job.init_seed}.yaml",
        "init_seed": job.init_seed,
        "order": variant.order,
        "gap_kind": variant.gap_kind,
        "density": variant.density,
        "book_ids": " ".join(variant.book_ids),
    }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _differences(recipe: Recipe) -> list[str]:
    """Return what the study's own runs do and Axolotl's will not."""
    runs, found = recipe.runs, []
    if recipe.model.base is None and recipe.model.parametrization == "mup":
        found.append("muP: Axolotl has one learning rate for all weights; --set model.parametrization=standard has too")
    if runs.optimizer != "adamw":
        found.append(
            f"the optimizer {runs.optimizer}: Axolotl's runs take adamw_torch; runs.axolotl.optimizer names others"
        )
    if runs.average_share:
        found.append("the average of the last weights (runs.average_share)")
    if runs.document_mask:
        found.append(
            "the mask between documents (runs.document_mask): tokens see what stands before them in the stream"
        )
    if runs.method != "full":
        found.append("adapters: Axolotl draws their first weights in its own way")
    return found


def _readme(
    work: WorkFolder,
    recipe: Recipe,
    rows: Sequence[Mapping[str, Any]],
    differs: Sequence[str],
    study: str,
    question: str,
) -> str:
    n_steps, batch = recipe.n_steps(), recipe.runs.batch_tokens
    block = recipe.model.shape(load(work).vocab_size).block_size
    titles = {book.book_id: book.title for book in read_catalogue(work)}
    first = rows[0]["config"].split("/")
    launcher = "--launcher python"
    if recipe.runs.processes_per_run > 1:
        launcher = f"--launcher torchrun -- --nproc_per_node={recipe.runs.processes_per_run}"
    base = "`base` is the base model"
    if recipe.model.base is None:
        base = "`start-SEED` are the models that runs start from, with the weights that ltm gives them"
    elif not is_own(Path(recipe.model.base)):
        base += " (a link: on another machine put the model's folder there)"
    lines = [
        f"# {study}: {len(rows)} runs for Axolotl",
        "",
        f"{question.strip()}",
        "",
        f"Written by ltm. {len({r['variant_id'] for r in rows})} training sets, one folder each; `{TABLE}` says which "
        f"books, order and gaps a folder is, and which run of the study. {base}.",
        "",
        "One run, and all of them one after another (a run that was stopped goes on):",
        "",
        f"    cd {first[0]} && {_ENVIRONMENT} axolotl train {first[1]} {launcher}",
        "",
        "    for config in */config-*.yaml; do (cd $(dirname $config) && "
        f"{_ENVIRONMENT} axolotl train $(basename $config) {launcher}) || break; done",
        "",
        f"Every run reads {n_steps * batch:,} tokens in {n_steps:,} steps of {batch:,}: `stream.parquet` holds the "
        f"variant's exact tokens, already cut by the study's tokenizer, in rows of {block} + 1 (the last token of a "
        "row is the first of the next, so that each is predicted once). Rows are read in their order "
        "(`curriculum_sampling`) and never packed, grouped, shuffled or held out: keep those settings, or order and "
        "gaps are no longer what is compared. Losses are logged in `out-SEED/checkpoint-*/trainer_state.json`.",
        "",
        "Where it runs decides `bf16`, `fp16`, `tf32`, `micro_batch_size` and the `lora_*_kernel` switches; they are "
        f"set for {hardware.pick_device(recipe.runs)} (another one: export with `--set runs.device=cuda`).",
        "",
    ]
    if differs:
        lines += ["Not the same as in ltm's own runs:", "", *[f"- {text}" for text in differs], ""]
    lines += ["Books:", "", *[f"- `{book}` {titles.get(book, '')}" for book in _books(rows)], ""]
    return "\n".join(lines)


def _books(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({book for row in rows for book in str(row["book_ids"]).split()})
