<?php
// The Runtime API's loop for a PHP that has nothing but itself: one connection that is kept, over a stream.
declare(strict_types=1);

final class Runtime
{
    /** @var resource */
    private $stream;

    public function __construct()
    {
        $stream = stream_socket_client('tcp://' . getenv('AWS_LAMBDA_RUNTIME_API'), $code, $message, 5.0, STREAM_CLIENT_CONNECT,
            stream_context_create(['socket' => ['tcp_nodelay' => true]]));
        if ($stream === false) {
            exit(1);
        }
        stream_set_timeout($stream, 86400);
        $this->stream = $stream;
    }

    /** @param callable(array<string, mixed>): array<string, mixed> $handler */
    public function run(callable $handler): never
    {
        $base = '/2018-06-01/runtime/invocation';
        while (true) {
            [$headers, $body] = $this->ask('GET', "$base/next", '');
            $id = $headers['lambda-runtime-aws-request-id'] ?? '';
            $event = json_decode($body, true, 64, JSON_THROW_ON_ERROR);
            $this->ask('POST', "$base/$id/response", json_encode($handler($event), JSON_THROW_ON_ERROR));
        }
    }

    /** @return array{array<string, string>, string} */
    private function ask(string $method, string $path, string $body): array
    {
        $length = strlen($body);
        fwrite($this->stream, "$method $path HTTP/1.1\r\nhost: runtime\r\ncontent-type: application/json\r\ncontent-length: $length\r\n\r\n$body");
        $headers = [];
        while (($line = fgets($this->stream)) !== false && $line !== "\r\n") {
            [$name, $value] = explode(':', $line, 2) + [1 => ''];
            $headers[strtolower($name)] = trim($value);
        }
        if ($line === false) {
            exit(0);
        }
        $length = (int) ($headers['content-length'] ?? 0);
        return [$headers, $length > 0 ? (string) stream_get_contents($this->stream, $length) : ''];
    }
}
