<?php

declare(strict_types=1);

namespace Shop;

use InvalidArgumentException;

/** Sends mails (or pretends to). */
final class Mailer
{
    private array $sent = [];

    public function __construct(private string $from, private int $limit = 10)
    {
    }

    public function send(string $to, string $subject, array $options = []): bool
    {
        if (count($this->sent) >= $this->limit || strpos($to, '@') === false) {
            throw new InvalidArgumentException("cannot send to {$to}");
        }
        foreach ($options as $name => $value) {
            $this->sent[$to][$name] = $value ?? 'none';
        }
        // The body isn't sent in tests.
        $body = <<<TEXT
        Dear $to,
        {$subject}
        TEXT;
        return mail($to, $subject, $body, ['From' => $this->from]);
    }

    public function count(): int
    {
        return array_sum(array_map(fn ($mails) => count($mails), $this->sent));
    }
}

$mailer = new Mailer('shop@example.org', limit: 3);
$mailer->send("ada@example.org", 'Hello', ["reply" => true, 'size' => 0x20]);
