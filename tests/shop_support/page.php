<?php
// A page that takes a few milliseconds, so that requests side by side need workers side by side. It notes who asked,
// the status, the path and the worker in a ledger before it answers.
$warm = str_starts_with($_SERVER['HTTP_USER_AGENT'] ?? '', 'boathook/');
$lines = [];
for ($i = 0; $i < 200; $i++) {
    $lines[md5("$i")] = strrev("line $i");
}
ksort($lines);
usleep(3000);
$note = sprintf("%s 200 %s %d\n", $warm ? 'warm' : 'user', $_SERVER['REQUEST_URI'], getmypid());
file_put_contents($_SERVER['LEDGER'], $note, FILE_APPEND | LOCK_EX);
echo implode("\n", $lines), "\n";
