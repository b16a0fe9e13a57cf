package shop;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/** An account (with a history). */
public class Account {
    private static final double RATE = 0.015;
    private final String owner;
    private final List<Long> history = new ArrayList<>();
    private long balance;

    public Account(String owner, long balance) {
        this.owner = owner;
        this.balance = balance;
    }

    @Override
    @SuppressWarnings({"unused", "boxing"})
    public String toString() {
        return String.format("%s: %d.%02d", owner, balance / 100, balance % 100);
    }

    public boolean withdraw(long amount) throws IllegalArgumentException {
        if (amount <= 0 || amount > balance) {
            throw new IllegalArgumentException("amount (" + amount + ") isn't valid");
        }
        balance -= amount;
        history.add(-amount);
        return true;
    }

    public Optional<Long> last() {
        return history.isEmpty() ? Optional.empty() : Optional.of(history.get(history.size() - 1));
    }

    public int[] counts() {
        int[] counts = {0, 0};
        for (long change : history) {
            switch (Long.signum(change)) {
                case -1:
                    counts[0]++;
                    break;
                default:
                    counts[1] += 1;
            }
        }
        history.stream().filter(x -> x > 0).map(x -> x * RATE).forEach(System.out::println);
        char quote = '\'';
        return counts;
    }
}
