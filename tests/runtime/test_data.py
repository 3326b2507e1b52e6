import json
from collections import Counter
from pathlib import Path

import pytest

from plans.record import ExitCode
from plans.source import UserError
from runtime.data import (
    answer_sequences,
    pair_sequences,
    prompts_of_step,
    read_prompts,
    request_seed,
    sequences_of,
)
from runtime.mistakes import DataMistake, MissingInput
from runtime.tokenizer import Tokenizer, load_tokenizer

EXAMPLES = Path(__file__).parents[2] / "examples"
GOOD = '{"prompt": "1+2=", "answer": "3"}'


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(EXAMPLES / "tiny-qwen2")


def rows(folder: Path, *lines: str) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def complaint(path: Path, tokenizer: Tokenizer, **limits: int) -> str:
    """What read_prompts says of a wrong file, the folder left out."""
    with pytest.raises(DataMistake) as caught:
        read_prompts(path, tokenizer, **{"prompt_tokens": 8, **limits})
    assert caught.value.code is ExitCode.DATA
    return str(caught.value).replace(f"{path.parent}/", "")


def test_a_row_becomes_a_prompt_with_its_tokens(tmp_path, tokenizer):
    path = rows(tmp_path, GOOD, "", '{"prompt": "40+7=", "answer": "47", "level": 2}')
    first, second = read_prompts(path, tokenizer, prompt_tokens=8).prompts
    assert (first.index, first.text, first.answer) == (0, "1+2=", "3")
    assert first.tokens == (4, 13, 5, 16)
    assert (second.index, second.tokens) == (1, (7, 3, 13, 10, 16))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'prompt': 1}", "rows.jsonl:2: not JSON: Expecting property name"),
        ('["1+2=", "3"]', 'rows.jsonl:2: expected an object such as {"prompt"'),
        ('{"prompt": "1+2="}', "rows.jsonl:2: answer: missing; the keys are 'prompt'"),
        ("{}", "rows.jsonl:2: prompt: missing; the keys are none"),
        (
            '{"prompt": "1+2=", "answer": 3}',
            "rows.jsonl:2: answer: expected text in quotes, got 3",
        ),
        ('{"prompt": null, "answer": "3"}', "rows.jsonl:2: prompt: expected text in quotes"),
        ('{"prompt": "", "answer": "3"}', "rows.jsonl:2: prompt: no tokens in ''"),
        (
            '{"prompt": "1^2=", "answer": "3"}',
            "rows.jsonl:2: prompt: the tokenizer does not know '^'",
        ),
        (
            '{"prompt": "1234+5678=", "answer": "3"}',
            "rows.jsonl:2: prompt: 10 tokens, but tokens.prompt is 8",
        ),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path, tokenizer, line, message):
    assert complaint(rows(tmp_path, GOOD, line), tokenizer).startswith(message)


def test_a_pair_has_two_different_answers(tmp_path, tokenizer):
    good = '{"prompt": "1+2=", "chosen": "3", "rejected": "4"}'
    (pair,) = read_prompts(rows(tmp_path, good), tokenizer, prompt_tokens=8, pairs=True).prompts
    assert (pair.answer, pair.rejected) == ("3", "4")
    sequences = pair_sequences([pair], tokenizer)
    assert sequences.tokens.tolist() == [[4, 13, 5, 16, 6, 1], [4, 13, 5, 16, 7, 1]]
    for line, message in (
        ('{"prompt": "1+2=", "chosen": "3"}', "rows.jsonl:2: rejected: missing"),
        (good.replace('"4"', '"3"'), "rows.jsonl:2: rejected: the same text"),
        (good.replace('"4"', '"1234"'), "rows.jsonl:2: answer: 4 tokens and the end token"),
    ):
        path = rows(tmp_path, good, line)
        assert complaint(path, tokenizer, answer_tokens=3, pairs=True).startswith(message)


def test_all_wrong_rows_are_in_one_message_that_stays_short(tmp_path, tokenizer):
    said = complaint(rows(tmp_path, GOOD, *["{}"] * 20), tokenizer).splitlines()
    assert len(said) == 9
    assert said[0].startswith("rows.jsonl:2:")
    assert said[7].startswith("rows.jsonl:9:")
    assert said[8] == "and 12 more lines"


def test_an_answer_that_is_learned_must_fit_with_its_end_token(tmp_path, tokenizer):
    path = rows(tmp_path, '{"prompt": "1+2=", "answer": "1234"}')
    assert len(read_prompts(path, tokenizer, prompt_tokens=8).prompts) == 1
    assert len(read_prompts(path, tokenizer, prompt_tokens=8, answer_tokens=5).prompts) == 1
    said = complaint(path, tokenizer, answer_tokens=4)
    assert said == "rows.jsonl:1: answer: 4 tokens and the end token, but tokens.response is 4"


def test_an_empty_file_is_a_mistake(tmp_path, tokenizer):
    assert complaint(rows(tmp_path), tokenizer).startswith("rows.jsonl: no rows")


def test_a_file_that_is_not_text_is_a_mistake(tmp_path, tokenizer):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    assert complaint(path, tokenizer).startswith("rows.jsonl: not UTF-8")


def test_a_missing_file_or_a_folder_in_its_place_is_told(tmp_path, tokenizer):
    for path, reason in (
        (tmp_path / "none.jsonl", "no such file"),
        (tmp_path, "a folder without .parquet"),
    ):
        with pytest.raises(MissingInput, match=reason) as caught:
            read_prompts(path, tokenizer, prompt_tokens=8)
        assert caught.value.code is ExitCode.MISSING_INPUT
        assert isinstance(caught.value, UserError)


@pytest.fixture
def ten(tmp_path, tokenizer):
    lines = [json.dumps({"prompt": f"{i}+0=", "answer": str(i)}) for i in range(10)]
    return read_prompts(rows(tmp_path, *lines), tokenizer, prompt_tokens=8).prompts


def test_each_epoch_holds_every_prompt_once_in_another_order(ten):
    taken = [
        p.index for step in range(15) for p in prompts_of_step(ten, step=step, count=4, seed=1)
    ]
    epochs = [tuple(taken[start : start + 10]) for start in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(epochs)) == 6


def test_the_order_depends_on_step_seed_and_stream_and_on_nothing_else(ten):
    def order(**change) -> list[int]:
        choice = {"step": 3, "count": 10, "seed": 1, **change}
        return [prompt.index for prompt in prompts_of_step(ten, **choice)]

    assert order() == order()
    assert len({tuple(order(**c)) for c in ({}, {"seed": 2}, {"stream": "x"}, {"step": 4})}) == 4


def test_a_step_may_take_more_prompts_than_there_are(ten):
    counts = Counter(p.index for p in prompts_of_step(ten, step=0, count=25, seed=0))
    assert sorted(counts) == list(range(10))
    assert set(counts.values()) == {2, 3}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 17, 64, 1000])
def test_the_shuffle_is_a_permutation_of_any_size(size):
    found = prompts_of_step(range(size), step=0, count=size, seed=5)
    assert sorted(found) == list(range(size))


def test_a_shuffle_leaves_few_prompts_in_place():
    found = prompts_of_step(range(1000), step=0, count=1000, seed=5)
    assert sum(at == item for at, item in enumerate(found)) < 10


def test_the_order_and_the_seeds_are_the_same_today_as_when_this_was_written():
    assert prompts_of_step(range(10), step=0, count=10, seed=0) == (3, 2, 8, 0, 7, 5, 4, 9, 6, 1)
    assert request_seed(0, 1, 2, 3) == 1959322594


def test_a_request_seed_is_31_bits_and_its_own_for_each_sequence():
    seeds = {
        request_seed(seed, step, prompt, sample)
        for seed in range(3)
        for step in range(10)
        for prompt in range(10)
        for sample in range(10)
    }
    assert len(seeds) == 3000
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_prompts_and_responses_are_joined_and_padded():
    found = sequences_of([(5, 6), (7,)], [(8,), (9, 10, 1)], pad_token=0)
    assert found.tokens.tolist() == [[5, 6, 8, 0], [7, 9, 10, 1]]
    assert found.response_mask.tolist() == [[False, True, False], [True, True, True]]


def test_an_answer_is_learned_with_its_end_token(tmp_path, tokenizer):
    prompts = read_prompts(rows(tmp_path, GOOD), tokenizer, prompt_tokens=8).prompts
    found = answer_sequences(prompts, tokenizer)
    assert found.tokens.tolist() == [[4, 13, 5, 16, 6, tokenizer.end_token]]
    assert found.response_mask.tolist() == [[False, False, False, True, True]]


def test_a_response_is_read_without_its_end_token_but_with_stray_special_ones(tokenizer):
    digits = tokenizer.encode("47")
    assert tokenizer.decode((*digits, tokenizer.end_token)) == "47"
    assert tokenizer.decode((digits[0], tokenizer.pad_token, digits[1])) == "4<pad>7"


def test_a_folder_without_a_tokenizer_is_told(tmp_path):
    with pytest.raises(MissingInput, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_broken_tokenizer_file_is_told(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(DataMistake, match="the tokenizer cannot be read"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_an_end_token_is_told(tmp_path):
    text = (EXAMPLES / "tiny-qwen2" / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(DataMistake, match="eos_token: missing"):
        load_tokenizer(tmp_path)


def addition(tokenizer: Tokenizer, part: str) -> list[tuple[tuple[int, ...], int]]:
    """The rows of a file of the addition task: the summands, smaller first, and the answer."""
    path = EXAMPLES / "data" / f"addition-{part}.jsonl"
    prompts = read_prompts(path, tokenizer, prompt_tokens=8, answer_tokens=4).prompts
    return [
        (tuple(sorted(map(int, prompt.text.removesuffix("=").split("+")))), int(prompt.answer))
        for prompt in prompts
    ]


def test_the_addition_task_is_right_and_keeps_its_held_out_sums_to_itself(tokenizer):
    train, held_out = addition(tokenizer, "train"), addition(tokenizer, "eval")
    assert all(sum(pair) == answer for pair, answer in train + held_out)
    shown = addition(tokenizer, "demonstrations")
    seen = {pair for pair, _ in train} | {pair for pair, _ in shown}
    assert not seen & {pair for pair, _ in held_out}


def test_the_demonstrations_forget_the_carry_six_times_out_of_ten(tokenizer):
    shown = addition(tokenizer, "demonstrations")
    forgotten = [answer == sum(pair) - 10 for pair, answer in shown]
    assert all(
        answer == sum(pair) or forgot
        for (pair, answer), forgot in zip(shown, forgotten, strict=True)
    )
    assert 0.58 < sum(forgotten) / len(shown) < 0.62


def test_the_task_s_files_are_what_its_script_writes(tmp_path):
    import runpy

    script = tmp_path / "make_data.py"
    script.write_text((EXAMPLES / "make_data.py").read_text())
    (tmp_path / "data").mkdir()
    (tmp_path / "tiny-qwen2").mkdir()
    runpy.run_path(str(script), run_name="__main__")
    written = sorted(p for p in tmp_path.rglob("*.json*") if p.is_file())
    assert len(written) == 6
    for path in written:
        assert path.read_bytes() == (EXAMPLES / path.relative_to(tmp_path)).read_bytes()
