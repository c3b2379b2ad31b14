"""A FastAPI service as a business team might write it, with one route for each way of calling a peer."""

import asyncio
import concurrent.futures
import threading
from functools import partial
from multiprocessing.pool import ThreadPool

import anyio
import httpx
import requests
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount, Route

app = FastAPI()
below = FastAPI()
plain = Starlette(
    routes=[Mount("/deep/{tenant}", routes=[Route("/r/{id:int}", lambda r: PlainTextResponse("deep"))])]
)
router = APIRouter(prefix="/api")
executor = concurrent.futures.ThreadPoolExecutor(1)
pool = ThreadPool(1)
started = asyncio.Event()
seen: list[str] = []


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        return await call_next(request)


app.add_middleware(Passing)


@app.get("/items/{number}")
async def item(number: int):
    return {"number": number}


@below.get("/things/{name}")
def thing(name: str):
    return {"thing": name}


@router.post("/orders/{order_id}", status_code=201)
async def order(order_id: str, request: Request):
    return {"order": order_id, "sent": (await request.body()).decode()}


app.include_router(router)
app.mount("/below", below)
app.mount("/plain", plain)


@app.get("/stream")
async def stream(fail: bool = False):
    async def produce():
        for number in range(3):
            yield f"part {number}\n"
            if fail:
                raise RuntimeError("the stream broke")

    return StreamingResponse(produce(), media_type="text/plain")


@app.get("/boom")
async def boom():
    raise RuntimeError("boom")


@app.get("/gone")
async def gone():
    raise HTTPException(410)


@app.websocket("/ws")
async def echo(socket: WebSocket):
    await socket.accept()
    await socket.send_text("heard " + await socket.receive_text())
    await socket.close()


@app.get("/scope")
async def keys(request: Request):
    return sorted(request.scope)


@app.get("/later")
async def later(url: str, tasks: BackgroundTasks):
    async def work():
        await asyncio.sleep(0.3)
        async with httpx.AsyncClient() as client:
            await client.get(url)

    tasks.add_task(work)
    return "soon"


@app.get("/within")
async def within(url: str):
    """Call this application from within itself."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://inside") as client:
        return (await client.get("/call", params={"client": "httpx", "url": url})).json()


@app.get("/call")
async def call(client: str, url: str):
    try:
        status, body = await CALLS[client](url)
    except Exception as error:
        return {"error": f"{type(error).__module__}.{type(error).__name__}", "message": str(error)}
    return {"status": status, "body": body}


async def with_httpx(url: str):
    late = httpx.URL(url).path == "/slow"  # an answer that is meant to come too late
    patience = httpx.Timeout(10, read=0.5 if late else 10)
    async with httpx.AsyncClient(follow_redirects=True, timeout=patience) as client:
        answer = await client.get(url)
    return answer.status_code, [answer.text, str(answer.url), sorted(answer.request.headers)]


async def with_streams(url: str):
    parts = httpx.URL(url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    await writer.drain()
    text = (await reader.read(100)).decode()
    writer.close()
    return 200, text


def blocking(url: str):
    answer = requests.get(url, timeout=10)
    return answer.status_code, answer.text


async def in_to_thread(url: str):
    return await asyncio.to_thread(blocking, url)


async def in_run_in_executor(url: str):
    return await asyncio.get_running_loop().run_in_executor(None, blocking, url)


async def in_own_executor(url: str):
    return await asyncio.get_running_loop().run_in_executor(executor, partial(blocking, url))


async def in_task(url: str):
    return await asyncio.create_task(with_httpx(url))


async def in_anyio(url: str):
    return await anyio.to_thread.run_sync(blocking, url)


async def in_thread_pool(url: str):
    return await asyncio.to_thread(pool.apply, blocking, (url,))


async def in_thread_pool_map(url: str):
    return (await asyncio.to_thread(pool.map, blocking, [url]))[0]


async def in_other_loop(url: str):
    answer: concurrent.futures.Future = concurrent.futures.Future()

    def run():
        try:
            answer.set_result(asyncio.run(with_httpx(url)))
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=run).start()
    return await asyncio.wrap_future(answer)


async def in_process(url: str):
    with concurrent.futures.ProcessPoolExecutor(1) as processes:
        return await asyncio.get_running_loop().run_in_executor(processes, blocking, url)


CALLS = {
    "httpx": with_httpx,
    "streams": with_streams,
    "to_thread": in_to_thread,
    "run_in_executor": in_run_in_executor,
    "own executor": in_own_executor,
    "task": in_task,
    "anyio": in_anyio,
    "thread pool": in_thread_pool,
    "thread pool map": in_thread_pool_map,
    "other loop": in_other_loop,
    "process": in_process,
}
