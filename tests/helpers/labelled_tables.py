"""Three labelled tables such as practitioners have; every text is invented.

tickets.csv    12 queues without an order: of several tokens, one a prefix of another, with commas,
               quotes, upper case, an emoji and other scripts; no explanations
scale.parquet  a scale of 7 points as integers, with explanations
answers.jsonl  right or wrong, with an explanation and a group for each
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from random import Random
from typing import Any

# Messages by their queue.
QUEUES = {
    "Billing": ("the invoice of {month}", "there are two lines I do not know"),
    "Billing dispute": ("a charge in {month} that I refuse", "I want it looked into"),
    "Delivery, late": ("my parcel of {month}", "it is {number} days late"),
    'Delivery "lost"': ("parcel number {number}", "nobody knows where it is"),
    "REFUND": ("the money for order {number}", "please send it back"),
    "Password": ("my password", "the form says it is wrong"),
    "Password reset link": ("the link from {month}", "it has expired, send another"),
    "🔒 account locked": ("my account", "it is locked after {number} attempts"),
    "возврат товара": ("товар номер {number}", "хочу вернуть деньги"),
    "发票 申请": ("订单 {number} 的发票", "请发给我"),
    "it's broken": ("the screen of device {number}", "it stays dark"),
    "Other: none of these": ("a question about {month}", "who can help me"),
}
LABELS = tuple(QUEUES)
MONTHS = ("January", "March", "May", "July", "October", "December")


def write_tickets(folder: Path, rows: int = 300) -> Path:
    """Write ``tickets.csv`` with the columns ticket, message and queue."""
    random = Random(1)
    path = folder / "tickets.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["ticket", "message", "queue"])
        for number in range(rows):
            queue = LABELS[number % len(LABELS)]
            about, trouble = (
                part.format(month=random.choice(MONTHS), number=random.randint(2, 9999))
                for part in QUEUES[queue]
            )
            end = random.choice((".", "!", ", please.", ".\nThank you."))
            table.writerow(
                [f"T{number:04d}", f"No. {number}, about {about}: {trouble}{end}", queue]
            )
    return path


def write_tickets_of_customers(folder: Path) -> None:
    """``tickets.csv`` of the tutorials, with the columns message, queue, why and customer."""
    random = Random(0)
    about = {"billing": "invoice", "technical": "login", "delivery": "parcel"}
    with (folder / "tickets.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["message", "queue", "why", "customer"])
        for number in range(240):
            queue = random.choice(sorted(about))
            text = f"Message {number}: my {about[queue]} of week {random.randrange(52)} is wrong."
            table.writerow([text, queue, f"It is about a {about[queue]}.", f"c{number % 80}"])


def write_scale(folder: Path, rows: int = 210) -> Path:
    """Write ``scale.parquet`` with the columns answer, points (1 to 7) and reason."""
    import pyarrow as pa
    from pyarrow import parquet

    random = Random(2)
    parts = ("who", "what", "where", "when", "why", "how")
    table: dict[str, list[Any]] = {"answer": [], "points": [], "reason": []}
    for number in range(rows):
        points = number % 7 + 1
        said = random.sample(parts, points - 1)
        listed = ", ".join(said) or "nothing"
        table["answer"].append(f"Report {number} tells {listed} of event {random.randint(1, 999)}.")
        table["points"].append(points)
        table["reason"].append(f"It covers {listed} and leaves out the other {7 - points} parts.")
    path = folder / "scale.parquet"
    parquet.write_table(pa.table(table), path)
    return path


def write_answers(folder: Path, rows: int = 120) -> Path:
    """Write ``answers.jsonl`` with the keys id, text, verdict (right, wrong), why and book."""
    random = Random(3)
    path = folder / "answers.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            first, second = random.randint(10, 99), random.randint(10, 99)
            right = number % 3 > 0
            shown = first + second if right else first + second + random.choice((-10, -1, 1, 10))
            row = {
                "id": f"a-{number}",
                "text": f"Exercise {number}: {first} + {second} = {shown}",
                "verdict": "right" if right else "wrong",
                "why": f"{first} and {second} make {first + second}"
                + ("." if right else f", and not {shown}."),
                "book": f"book-{number // 2}",
            }
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path
