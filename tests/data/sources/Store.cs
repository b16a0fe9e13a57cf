using System;
using System.Collections.Generic;
using System.Linq;

namespace Shop
{
    /// <summary>Items by name.</summary>
    public class Store
    {
        private readonly Dictionary<string, decimal> prices = new Dictionary<string, decimal>();

        public string Title { get; set; } = "Store";

        public int Count => prices.Count;

        [Obsolete("use Add(string, decimal)")]
        public void Put(string name) => Add(name, 0m);

        public void Add(string name, decimal price)
        {
            if (string.IsNullOrEmpty(name) || price < 0)
            {
                throw new ArgumentException($"bad item {name}: {price:F2}", nameof(name));
            }
            prices[name] = price;
        }

        public IEnumerable<string> Cheap(decimal limit = 10.5m)
        {
            foreach (var pair in prices.Where(p => p.Value < limit).OrderBy(p => p.Key))
            {
                yield return pair.Key + ": " + pair.Value;
            }
        }

        public static void Main(string[] args)
        {
            var store = new Store { Title = @"C:\shop" };
            store.Add("tea", 2.5m);
            int[] numbers = { 1, 2, 3 };
            // Prints (all) cheap items.
            Console.WriteLine(string.Join(", ", store.Cheap()) + numbers[0] + '"');
        }
    }
}
