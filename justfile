# Everything a change has to pass, as CI runs it.
check: lint types floors test

lint:
    uv run ruff check .
    uv run ruff format --check .

format:
    uv run ruff check --fix .
    uv run ruff format .

types:
    uv run pyright

floors:
    uv run lint-imports

test *arguments:
    uv run pytest {{arguments}}

demo:
    uv run ost demo
