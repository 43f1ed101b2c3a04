"""A service with FastAPI and sentence-transformers, as a careful team would write it; one of `benchmarks.serve`.

    python -m benchmarks.serve_fastapi FOLDER --port N --threads N [--most-texts N] [--batch-size N]

- Requests wait in a queue. One thread encodes everything that waits, up to 64 texts, with one call of `encode`;
  meanwhile the event loop reads and writes. There is no timer: an idle service computes a request at once.
- `encode` sorts the texts by length and pads 16 at a time: of 8, 16, 32 and 64, this took the least CPU time per text.
- orjson writes the vectors; uvicorn runs on uvloop and httptools; there is no access log.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

Waiting = tuple[list[str], "asyncio.Future[Any]"]


def create_app(folder: str, threads: int, most_texts: int, batch_size: int) -> Any:
    """Return the application. most_texts: of one call of `encode`; one request may have more."""
    import orjson
    import torch
    from fastapi import FastAPI, Response
    from pydantic import BaseModel
    from sentence_transformers import SentenceTransformer

    class Embeddings(BaseModel):
        input: str | list[str]
        model: str = ""

    torch.set_num_threads(threads)
    model = SentenceTransformer(folder, device="cpu")
    queue: asyncio.Queue[Waiting] = asyncio.Queue()
    thread = ThreadPoolExecutor(1)

    def encode(texts: list[str]) -> Any:
        return model.encode(texts, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)

    async def batches() -> None:
        while True:
            taken = [await queue.get()]
            n_texts = len(taken[0][0])
            while n_texts < most_texts and not queue.empty():
                taken.append(queue.get_nowait())
                n_texts += len(taken[-1][0])
            texts = [text for texts, _ in taken for text in texts]
            try:
                vectors = await asyncio.get_running_loop().run_in_executor(thread, encode, texts)
            except Exception as error:  # each of these requests fails, and the service goes on
                for _, future in taken:
                    if not future.cancelled():
                        future.set_exception(error)
                continue
            begin = 0
            for asked, future in taken:
                if not future.cancelled():
                    future.set_result(vectors[begin : begin + len(asked)])
                begin += len(asked)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        encode(["warm up"])
        task = asyncio.create_task(batches())
        yield
        task.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/embeddings")
    async def embeddings(request: Embeddings) -> Response:
        texts = [request.input] if isinstance(request.input, str) else request.input
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        queue.put_nowait((texts, future))
        data = [
            {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(await future)
        ]
        content = {"object": "list", "data": data, "model": request.model}
        return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")

    return app


def main() -> None:
    import uvicorn

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", help="folder of the model")
    parser.add_argument("--port", type=int, metavar="N", required=True, help="port on 127.0.0.1")
    parser.add_argument("--threads", type=int, metavar="N", required=True, help="threads of torch")
    parser.add_argument("--most-texts", type=int, metavar="N", default=64, help="encoded together (default: 64)")
    parser.add_argument("--batch-size", type=int, metavar="N", default=16, help="per forward pass (default: 16)")
    options = parser.parse_args()
    app = create_app(options.folder, options.threads, options.most_texts, options.batch_size)
    uvicorn.run(app, host="127.0.0.1", port=options.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
