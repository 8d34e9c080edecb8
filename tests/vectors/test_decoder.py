"""The second decoder reads every frame and every conversation as the first does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.vectors.conversation import Conversation
from tests.vectors.decoder import Refused, as_written, decode, unrun

FOLDER = Path(__file__).parent
FRAMES: list[dict[str, Any]] = json.loads((FOLDER / "frames.json").read_text())
CONVERSATIONS = sorted((FOLDER / "conversations").glob("*.json"))


@pytest.mark.parametrize("vector", FRAMES, ids=lambda vector: vector["name"])
def test_a_frame_is_decoded_to_its_fields_or_its_error(vector: dict[str, Any]) -> None:
    data, in_handshake = unrun(vector["hex"]), vector.get("in") == "handshake"
    if vector.get("needs_a_stream"):
        assert decode(data) is not None
    elif "error" in vector:
        with pytest.raises(Refused) as refused:
            decode(data, in_handshake=in_handshake)
        assert refused.value.code == vector["error"]
    else:
        frame = decode(data, in_handshake=in_handshake)
        if vector.get("incomplete"):
            assert frame is None
            return
        assert frame is not None
        assert frame.size == len(data)
        if vector.get("skipped"):
            assert frame.type == ""
            return
        expected = vector["frame"]
        if "data" in expected["fields"]:
            expected["fields"]["data"] = unrun(expected["fields"]["data"]).hex()
        assert as_written(frame) == expected


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 40])
def test_a_frame_that_is_cut_is_not_there_yet(cut: int) -> None:
    for vector in FRAMES:
        data = unrun(vector["hex"])
        if "frame" in vector and cut < len(data):
            assert decode(data[:cut], in_handshake=vector.get("in") == "handshake") is None


@pytest.mark.parametrize("path", CONVERSATIONS, ids=lambda path: path.stem)
def test_a_conversation_keeps_the_rules_and_shows_what_it_says(path: Path) -> None:
    conversation = Conversation()
    for number, step in enumerate(json.loads(path.read_text())["steps"]):
        conversation.take(step, f"{path.stem}, step {number}")
