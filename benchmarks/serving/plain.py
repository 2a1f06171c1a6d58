"""What people write first: FastAPI in front of sentence-transformers, one request after another in its thread pool.

python benchmarks/serving/plain.py MODEL PORT
"""

from __future__ import annotations

import base64
import sys

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer


class Body(BaseModel):
    input: list[str]
    encoding_format: str = "base64"


def main() -> None:
    model, app = SentenceTransformer(sys.argv[1], device="cpu"), FastAPI()

    @app.post("/v1/embeddings")
    def embeddings(body: Body) -> dict[str, object]:
        vectors = model.encode(body.input, normalize_embeddings=True)
        rows = [base64.b64encode(vector.astype(np.float32).tobytes()).decode() for vector in vectors]
        return {"data": [{"index": number, "embedding": row} for number, row in enumerate(rows)]}

    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error", access_log=False)


if __name__ == "__main__":
    main()
