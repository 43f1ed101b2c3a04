"""A server of sentence vectors and scores over HTTP, with the APIs of OpenAI and text-embeddings-inference.

    minilm-np serve                                        # in this package
    gunicorn 'minilm_np.server.app:create_app()' ...       # in another ASGI server; settings from the environment

Needs the extra `serve`: `pip install '.[serve]'` in a checkout.

Reading order:

    settings.py       `ServerSettings`: the models, the address, every limit; read from the environment
    failures.py       `RequestError`: why a request is refused, and the JSON that says so in each API
    json_fields.py    the fields of a JSON object, checked
    requests.py       JSON bodies -> checked requests
    tokens.py         checked requests -> token ids within the model's limit
    fair_queue.py     `FairQueue`: which texts form the next batch; no threads, no clock
    batches.py        `Job`, the texts of one request, and what is computed of them
    engine_threads.py the threads that encode what waits, one batch after the other
    responses.py      vectors and scores -> JSON
    exchange.py       one request and its response: the body within its limits, a client that goes away
    service.py        what the endpoints share: the key, the models, from a request to its vectors or scores
    endpoints.py      what each path does
    openapi.py        the OpenAPI document
    metrics.py        the numbers of /metrics
    logs.py           one line per request
    app.py            `create_app`: all of this as an ASGI application
    connections.py    limits of a connection that uvicorn does not have
    run.py            `serve`: the application on uvicorn, until SIGTERM
"""

INSTALL = "pip install starlette uvicorn httptools uvloop orjson prometheus-client"  # the libraries of the extra
