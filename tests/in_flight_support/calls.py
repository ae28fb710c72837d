# `server PORT`: a unary method that answers after as many milliseconds as it is asked for. `client PORT MS…`: one call after the
# other on one channel; it says `ready` when the last is on its way (with `idle`: when all are answered), and `answered`.
import sys, time
from concurrent import futures
import grpc

mode, port, *words = sys.argv[1:]
if mode == "server":
    def slow(request, context):
        time.sleep(int(request) / 1000)
        return b"x" * 500
    server = grpc.server(futures.ThreadPoolExecutor(4))
    methods = {"Slow": grpc.unary_unary_rpc_method_handler(slow)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", methods),))
    server.add_insecure_port("127.0.0.1:" + port)
    server.start()
    server.wait_for_termination()
else:
    channel = grpc.insecure_channel("127.0.0.1:" + port)
    call = channel.unary_unary("/test.Test/Slow")
    for index, word in enumerate(words):
        if word == "idle":
            print("ready", flush=True)
            time.sleep(60)
        future = call.future(word.encode(), wait_for_ready=True)
        if index == len(words) - 1:
            print("ready", flush=True)
        future.result()
    print("answered", flush=True)
    time.sleep(60)
