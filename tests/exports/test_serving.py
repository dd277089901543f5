"""What vLLM, llama.cpp and Ollama are given: commands, templates, decoding."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from gguf.constants import Keys
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from typer.testing import CliRunner

import kilotune
from kilotune.cli.main import app
from kilotune.errors import KilotuneError
from kilotune.exports import export, remarks
from kilotune.exports.finished import open_finished
from kilotune.exports.jinja_templates import render_template
from kilotune.models.identity import tuned_digest
from kilotune.models.public import on_hub, public_name
from kilotune.recipe.load import load_recipe
from kilotune.rendering.go_template import go_template
from kilotune.runs.record import RunFolder

OVERRIDE = '{"temperature": 0.0, "max_new_tokens": 9}'


def executed(script: Path, **environment: str) -> list[list[str]]:
    """The commands that a script runs, by programs of those names that only say so."""
    programs = script.parent.parent / "programs"
    programs.mkdir(exist_ok=True)
    said = programs / "said"
    said.unlink(missing_ok=True)
    for name in ("vllm", "python3", "ollama"):
        stand_in = programs / name
        stand_in.write_text(f'#!/bin/sh\nprintf "%s\\0" {name} "$@" "" >> "{said}"\n')
        stand_in.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    subprocess.run([script], check=True, cwd="/", env={"PATH": path, **environment})
    return [part.split("\0") for part in said.read_text().removesuffix("\0\0").split("\0\0")]


@pytest.mark.parametrize("name", ["org/model", "/models/mine"])
def test_the_base_model_is_looked_for_from_where_the_script_is_called(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "base").mkdir()
    found = render_template("base.sh.j2", base=public_name(name), on_hub=on_hub(name))
    script = f'{found}cd /; printf %s "$BASE"'

    def base(**given: str) -> str:
        run = ["sh", "-c", script]
        return subprocess.run(run, cwd=tmp_path, env=given, capture_output=True, text=True).stdout

    assert base(BASE="base") == str(tmp_path / "base")
    assert base(BASE="other/id") == "other/id"
    assert base() == ("org/model" if name == "org/model" else "")


def copied(run: Path, to: Path, **decoding: object) -> Path:
    """A copy of a run whose answers were decoded otherwise."""
    shutil.copytree(run, to)
    file = to / "adapter" / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | decoding))
    return to


def test_vllm_gets_the_adapter_beside_its_base_with_template_ends_and_decoding(
    llama_run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = export(llama_run, "vllm", tmp_path / "a b" / "out")
    # A folder is found from where the script is called.
    assert executed(out / "serve.sh", BASE=str(tiny_model).removeprefix("/")) == [
        [
            "vllm", "serve", str(tiny_model), "--enable-lora", "--max-lora-rank", "8",
            "--lora-modules", f"tiny-films={out}", "--dtype", "float32",
            "--chat-template", f"{out}/chat_template.jinja", "--generation-config", str(out),
            "--override-generation-config", OVERRIDE,
        ]
    ]  # fmt: skip
    script = (out / "serve.sh").read_text()
    assert f'# The base model is called "{tiny_model.name}".' in script
    assert str(tiny_model) not in script
    assert (out / "adapter_model.safetensors").is_file()
    assert GenerationConfig.from_pretrained(out).eos_token_id == [258]


def test_vllm_gets_the_merged_model_where_it_takes_no_adapter(
    qwen_run: Path, tmp_path: Path
) -> None:
    out = export(qwen_run, "vllm", tmp_path / "out")
    (command,) = executed(out / "serve.sh")
    assert command[:5] == ["vllm", "serve", str(out), "--served-model-name", "tiny-films"]
    assert "--enable-lora" not in command
    assert AutoModelForCausalLM.from_pretrained(out).config.model_type == "qwen2"


def test_sampling_is_that_of_the_run_in_every_program(llama_run: Path, tmp_path: Path) -> None:
    sampled = {"do_sample": True, "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.1}
    run = copied(llama_run, tmp_path / "run", **sampled)
    served = (export(run, "vllm", tmp_path / "v") / "serve.sh").read_text()
    override = served.split("--override-generation-config ")[1].split("'")[1]
    assert json.loads(override) == {
        "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.1, "max_new_tokens": 9
    }  # fmt: skip
    converted = (export(run, "gguf-instructions", tmp_path / "g") / "convert.sh").read_text()
    assert "--temp 0.7 --top-k 20 --top-p 1 --min-p 0 --repeat-penalty 1.1 -n 9" in converted
    written = (export(run, "ollama", tmp_path / "o") / "Modelfile").read_text()
    for line in ("temperature 0.7", "top_k 20", "repeat_penalty 1.1", "repeat_last_n -1"):
        assert f"PARAMETER {line}\n" in written


def test_gguf_files_are_converted_by_llama_cpp_from_the_merged_model(
    llama_run: Path, tmp_path: Path
) -> None:
    out = export(llama_run, "gguf-instructions", tmp_path / "out")
    assert executed(out / "convert.sh", LLAMA_CPP="/opt/llama.cpp") == [
        shlex.split(
            "python3 /opt/llama.cpp/convert_hf_to_gguf.py model --outtype f32 "
            "--metadata metadata.json --outfile tiny-films.gguf"
        )
    ]
    # By itself the converter would leave greedy out, and llama.cpp would sample.
    metadata = json.loads((out / "metadata.json").read_text())
    assert metadata == {
        "general.sampling.temp": 0.0, "general.sampling.top_k": 0, "general.sampling.top_p": 1.0,
        "general.sampling.min_p": 0.0, "general.sampling.penalty_repeat": 1.0,
    }  # fmt: skip
    assert set(metadata) <= {key for key in vars(Keys.General).values() if isinstance(key, str)}
    assert AutoModelForCausalLM.from_pretrained(out / "model").config.model_type == "llama"


def test_ollama_gets_template_system_message_ends_and_decoding(
    llama_run: Path, tmp_path: Path
) -> None:
    out = export(llama_run, "ollama", tmp_path / "out")
    assert executed(out / "create.sh")[1:] == [
        ["ollama", "create", "tiny-films", "-f", "Modelfile"]
    ]
    text = (out / "Modelfile").read_text()
    finished = open_finished(llama_run)
    assert f'\nTEMPLATE """{go_template(finished.template).text}"""\n' in text
    assert '\nSYSTEM """Classify the text. Answer with one of these labels' in text
    assert "\n#   Text: {text}\n#   Label:\nFROM ./model.gguf\n" in text
    assert [line for line in text.splitlines() if line.startswith("PARAMETER")] == [
        "PARAMETER temperature 0.0",
        "PARAMETER top_k 0",
        "PARAMETER top_p 1.0",
        "PARAMETER min_p 0.0",
        "PARAMETER repeat_penalty 1.0",
        "PARAMETER num_predict 9",
        "PARAMETER num_ctx 2048",
        'PARAMETER stop """<|im_end|>"""',
    ]


def chats(folder: Path, systems: list[str], model: Path) -> Path:
    """A finished run of chats in which every example brings one of `systems` along, in turn."""
    folder.mkdir()
    words = ("river", "lamp", "stone", "moss", "tin", "fern")
    with (folder / "chats.jsonl").open("w") as file:
        for number in range(60):
            system = systems[number % len(systems)]
            word = words[number % len(words)]
            told = [{"role": "system", "content": system}] if system else []
            asked = {"role": "user", "content": f"{word} {number}"}
            turns = [*told, asked, {"role": "assistant", "content": f"{word} {number} it is"}]
            file.write(json.dumps({"messages": turns}) + "\n")
    settings = {
        "data": {"train": str(folder / "chats.jsonl")},
        "model": {"name": str(model), "precision": "float32"},
    }
    overrides = ["tune.epochs=1", "judge.bootstrap_samples=50", "judge.base_check=say"]
    recipe = load_recipe(settings=settings, overrides=overrides)
    return kilotune.run(recipe, folder / "run").folder


def test_the_system_message_of_the_data_goes_along(tiny_model: Path, tmp_path: Path) -> None:
    run = chats(tmp_path / "one", ["Be brief."], tiny_model)
    out = export(run, "ollama", tmp_path / "o")
    assert '\nSYSTEM """Be brief."""\n' in (out / "Modelfile").read_text()
    card = (export(run, "merged", tmp_path / "m") / "README.md").read_text()
    assert '[{"role": "system", "content": "Be brief."}, {"role": "user"' in card
    assert [said["phrase"] for said in remarks(run, "ollama")] == ["export-room"]
    assert [said["phrase"] for said in remarks(run, "merged")] == [
        "export-room", "export-prompts-told"
    ]  # fmt: skip


@pytest.mark.parametrize("systems", [["Be brief.", "Be long."], ["Be brief.", ""]])
def test_system_messages_that_differ_are_said_to_be_missing(
    systems: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    run = chats(tmp_path / "two", systems, tiny_model)
    text = (export(run, "ollama", tmp_path / "o") / "Modelfile").read_text()
    assert "SYSTEM" not in text
    assert "which differ: send with each prompt its own\n" in text
    card = (export(run, "adapter", tmp_path / "a") / "README.md").read_text()
    assert "system messages of their own, which differ" in card
    asked = ["export", str(run), "--to", "merged", "-o", str(tmp_path / "m"), "--json"]
    done = CliRunner().invoke(app, asked)
    room, differ = json.loads(done.stdout)["remarks"]
    assert re.search(r"at most \d+ tokens, the run's max_new_tokens", room)
    assert "send with each prompt its own" in differ
    assert room in done.stderr


def test_texts_that_end_an_answer_are_said_to_every_program(
    llama_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(llama_run, tmp_path / "run")
    config = GenerationConfig.from_pretrained(run / "adapter")
    config.stop_strings = ["\n\n", "END"]
    config.save_pretrained(run / "adapter")
    modelfile = (export(run, "ollama", tmp_path / "ollama") / "Modelfile").read_text()
    assert 'PARAMETER stop """\n\n"""\nPARAMETER stop """END"""' in modelfile
    for target, script in (("vllm", "serve.sh"), ("gguf-instructions", "convert.sh")):
        text = (export(run, target, tmp_path / target) / script).read_text()
        assert '# Requests must say where answers end too: "stop": ["\\n\\n", "END"]\n' in text


def test_a_modelfile_that_would_lose_letters_is_refused(llama_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(llama_run, run)
    data = json.loads((run / "data.json").read_text())
    for system, why in (("a\u200bb", "letters like"), ('say """no"""', "three quotes")):
        data["wording"]["system"] = system
        (run / "data.json").write_text(json.dumps(data))
        with pytest.raises(KilotuneError, match=why):
            export(run, "ollama", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_served_template_writes_the_runs_prompts_without_arguments(
    llama_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(llama_run, run)
    own = run / "adapter" / "chat_template.jinja"
    own.write_text("{% if shout == true %}LOUD{% endif %}" + own.read_text())
    RunFolder(run).note_identity(tuned=tuned_digest(run / "adapter"))
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["model"]["template_arguments"] = {"shout": True}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "adapter")
    tokenizer.chat_template = (
        export(run, "vllm", tmp_path / "out") / "chat_template.jinja"
    ).read_text()
    asked = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text == "LOUD<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
