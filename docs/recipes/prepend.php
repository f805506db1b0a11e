<?php
declare(strict_types=1);

// auto_prepend_file: runs before every script of the application, so that not a line of it has to change. Nothing but a valid
// caller gets past this file.
(static function (): void {
    require_once __DIR__ . '/portcullis.php';
    $gate = new Portcullis(
        issuer: getenv('GATE_ISSUER') ?: throw new RuntimeException('GATE_ISSUER is not set'),
        audience: getenv('GATE_AUDIENCE') ?: throw new RuntimeException('GATE_AUDIENCE is not set'),
        keysFile: getenv('GATE_KEYS') ?: '/var/lib/portcullis/keys.json',
    );
    header_remove('X-Powered-By');
    try {
        $caller = $gate->caller($_SERVER);
    } catch (UnexpectedValueException $fault) {
        error_log('gate: refused: ' . $fault->getMessage());
        http_response_code(401);
        header('Cache-Control: no-store');
        exit;
    } catch (Throwable $fault) {
        error_log('gate: ' . get_class($fault) . ': ' . $fault->getMessage());
        http_response_code(503);
        header('Retry-After: 30');
        exit;
    }
    // What a legacy application looks at to know who calls: whatever came under these names is gone.
    $identity = '/^(REMOTE_USER|AUTH_TYPE|PHP_AUTH_.*|HTTP_(X_)?REMOTE_.*|HTTP_X_(USER|AUTH_REQUEST|AUTHENTICATED|PORTCULLIS)(?!_REQUEST_ID).*'
        . '|HTTP_X_FORWARDED_(USER|EMAIL|GROUPS?|PREFERRED_USERNAME))$/D';
    foreach (preg_grep($identity, array_map(strval(...), array_keys($_SERVER))) as $name) {
        unset($_SERVER[$name]);
    }
    $_SERVER['REMOTE_USER'] = $caller['sub'];
    $_SERVER['GATE'] = $caller;
})();
