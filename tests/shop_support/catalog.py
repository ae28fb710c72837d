"""A gRPC server with the standard health service and one method, `shop.Catalog/List`, in plain bytes.

Words: port, ledger, file. It is NOT_SERVING until the file is there, and its first COLD calls end with UNAVAILABLE.
Every call is noted in the ledger: who asked, the gRPC status, the method, the message in hexadecimal digits.
"""

import os
import sys
import threading
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

PORT, LEDGER, SERVING = sys.argv[1:]
LOCK = threading.Lock()
cold = int(os.environ.get("COLD", "0"))


def list_products(message, context):
    global cold
    agent = dict(context.invocation_metadata()).get("user-agent", "")
    who = "warm" if agent.startswith("boathook/") else "user"
    with LOCK:
        is_cold = cold > 0
        cold -= is_cold
        with open(LEDGER, "a") as ledger:
            ledger.write(f"{who} {14 if is_cold else 0} /shop.Catalog/List {message.hex()}\n")
    if is_cold:
        context.abort(grpc.StatusCode.UNAVAILABLE, "the catalogue is being read")
    return b"\x0a\x05shoes"


server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
method = grpc.unary_unary_rpc_method_handler(list_products)
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Catalog", {"List": method})])
health_service = health.HealthServicer()
health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
for name in ["", "shop.Catalog"]:
    health_service.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
server.add_insecure_port(f"127.0.0.1:{PORT}")
server.start()
while not os.path.exists(SERVING):
    time.sleep(0.01)
for name in ["", "shop.Catalog"]:
    health_service.set(name, health_pb2.HealthCheckResponse.SERVING)
server.wait_for_termination()
