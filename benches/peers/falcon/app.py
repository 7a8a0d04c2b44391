"""Falcon under gunicorn: a route for each model. Environment: see serving/engine.py."""

import falcon

from codec import pack, unpack
from engine import MODELS, Model


class Predict:
    def __init__(self, model: Model) -> None:
        self.model = model

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        rows = unpack(request.bounded_stream.read(), self.model.dtype)
        response.data = pack(self.model.run(rows))
        response.content_type = falcon.MEDIA_MSGPACK


class Ready:
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        response.text = "ready"


app = falcon.App()
app.add_route("/ready", Ready())
for name in MODELS:
    app.add_route(f"/{name}", Predict(Model(name)))
