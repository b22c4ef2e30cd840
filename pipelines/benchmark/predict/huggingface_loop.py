"""Hugging Face's `video-classification` pipeline: video files go in, a line with scores comes out for each.

It runs as a process of its own and imports nothing of this project:

    python -m pipelines.benchmark.predict.huggingface_loop '{"model": FOLDER, "videos": [...], "answers": FILE}'

The pipeline reads as many frames as its model has, from the start of the file, and ignores the rest of the video.
"""

import json
import sys
from pathlib import Path
from typing import Any

from transformers import pipeline


def main(request: dict[str, Any]) -> None:
    """Classify the videos of the request, and append a line to its file `answers` for each."""
    classify = pipeline("video-classification", model=request["model"])
    with Path(request["answers"]).open("a", buffering=1) as answers:
        for path in request["videos"]:
            classes = classify(path)
            clip = [each["score"] for each in classes]
            answers.write(json.dumps({"video": path, "label": classes[0]["label"], "clips": [clip]}) + "\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
