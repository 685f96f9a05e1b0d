# Everything a change has to pass, as CI runs it.
check: lint types floors test

lint:
    uv run --group dev ruff check .
    uv run --group dev ruff format --check .

format:
    uv run --group dev ruff check --fix .
    uv run --group dev ruff format .

types:
    uv run --group dev pyright

floors:
    uv run --group dev lint-imports

test *arguments:
    uv run --group dev pytest {{arguments}}

demo:
    uv run ost demo
