// A Node service as a business team might write it: GET /hop?url=... fetches the URL and answers with what came.
// OpenTelemetry's own instrumentation, as it comes from npm, forwards traceparent, tracestate and baggage.
"use strict";

const {
  CompositePropagator, W3CBaggagePropagator, W3CTraceContextPropagator,
} = require("@opentelemetry/core");
const { registerInstrumentations } = require("@opentelemetry/instrumentation");
const { HttpInstrumentation } = require("@opentelemetry/instrumentation-http");
const { NodeTracerProvider } = require("@opentelemetry/sdk-trace-node");

new NodeTracerProvider().register({
  propagator: new CompositePropagator({
    propagators: [new W3CTraceContextPropagator(), new W3CBaggagePropagator()],
  }),
});
registerInstrumentations({ instrumentations: [new HttpInstrumentation()] });

const http = require("http");

const server = http.createServer((request, response) => {
  const wanted = new URL(request.url, "http://here").searchParams.get("url");
  http
    .get(wanted, (answer) => {
      response.writeHead(answer.statusCode, { "content-type": "application/json" });
      answer.pipe(response);
    })
    .on("error", (error) => {
      response.writeHead(502, { "content-type": "application/json" });
      response.end(JSON.stringify({ error: error.message }));
    });
});

server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit(0)).resume();
