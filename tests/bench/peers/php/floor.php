<?php
// The loop with nothing to do.
declare(strict_types=1);
require __DIR__ . '/runtime.php';

(new Runtime())->run(fn (array $event): array => ['statusCode' => 204]);
